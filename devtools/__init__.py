"""The kit's command line: it reads job and recipe files, and runs them where asked."""
