"""What a model's parametrizations amount to, as figures."""
