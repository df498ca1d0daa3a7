"""What ./scripts/bench measures: engines, rows beside the peers, rows of dockpy alone, rows of its daemon."""
