"""The stage stage: data references become immutable, verified files on the disk where training runs."""
