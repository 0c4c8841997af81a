"""The packages that a script asks for beside torch and Horovod: read, resolved once, and built as a cached layer."""
