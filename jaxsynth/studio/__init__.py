"""The page of `jaxsynth studio`: `work` makes the pictures, `page` and `widgets` show them."""
