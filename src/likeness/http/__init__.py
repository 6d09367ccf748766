"""The service over HTTP: one application, three protocols, all of them thin translations of `service.Likeness`."""
