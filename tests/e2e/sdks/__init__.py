"""Programs of ordinary use, one a library; they run in an environment and as a user of their own."""
