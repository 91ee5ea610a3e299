"""The page of `jaxsynth studio`: `work` makes the pictures, `page` shows them."""
