"""The filter loss, the assignment of filters to categories, and the mutual information of maps and templates."""
