"""How right a flow is: datasets with ground truth, synthetic pairs, and models side by side on them."""
