"""What every room stands on: failures and their words, files and locks, processes, the terminal, a run's end."""
