"""The service over HTTP: one application with three protocols, all thin translations to `service.Likeness`."""
