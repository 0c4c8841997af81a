"""Small programs that import one library, print what they found as JSON, and may crash."""
