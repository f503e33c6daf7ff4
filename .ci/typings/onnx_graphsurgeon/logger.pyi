class Logger:
    severity: int
    ERROR: int

G_LOGGER: Logger
