"""What is learnt and how: the LightningModule, tasks, losses, metrics, optimisers."""
