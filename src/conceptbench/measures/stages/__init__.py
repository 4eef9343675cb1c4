"""One function a rule of the workflow: what is on disk in, tables out. The measures themselves are one floor below."""
