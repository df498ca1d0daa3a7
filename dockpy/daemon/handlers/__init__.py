"""One module a noun; each gives its handlers by the names of api/routes."""
