"""Pictures to try, train and measure on: degradations, holes, face shards, the demo's archive."""
