"""The stage cache: keys that name everything that decides a result, and hits that are verified."""
