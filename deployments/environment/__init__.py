"""The environment that training needs: locked packages, and Horovod built against the installed torch."""
