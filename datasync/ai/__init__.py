"""Learning on views: features of windows, a learner, and what its stages are worth."""
