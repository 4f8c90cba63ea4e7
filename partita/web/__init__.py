"""The page: sessions to look at and to steer, in a browser (`partita web`, docs/design/web.md)."""
