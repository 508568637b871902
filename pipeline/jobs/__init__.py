"""The jobs behind the commands: each is `run(config, ...) -> result`, prints nothing but progress, and raises
VqtokError for what a user can act on."""
