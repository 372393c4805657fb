"""Two processes that live at once and take turns, so that what disturbs one disturbs the other."""
