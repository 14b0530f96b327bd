"""The deployment engine: it takes a `Machine` and knows no pyinfra."""
