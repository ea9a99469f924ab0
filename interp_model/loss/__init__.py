"""The filter loss, the category each filter stands for, and the mutual information between them."""
