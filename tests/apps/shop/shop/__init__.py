"""A small shop: requests take orders, and jobs ship them."""
