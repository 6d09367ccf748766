"""The process that claims jobs of the queue and trains them, with its child processes, and the senders of messages."""
