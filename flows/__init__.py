"""What a person talks to: the chat flow, its evaluation, its successor, kept conversations, and the page."""
