"""What bench_learner compares: one task, our steps, and a plain Trainer's steps."""
