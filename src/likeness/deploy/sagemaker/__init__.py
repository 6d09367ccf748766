"""Amazon SageMaker: one CloudFormation template, plain boto3, the two containers' code. No SageMaker SDK."""
