"""The quality gate: every tool that looks at a fleet's files, what each finds, and what could not be judged."""
