"""Jobs: command jobs that really run, in the submitted image, with their code, their data and their outputs."""
