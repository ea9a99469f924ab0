"""Commands: the options they take, what they print, and which code they exit with."""
