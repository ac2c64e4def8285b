"""What can be done with a mix, one module a job."""
