"""The relational graph, the searches over it, and the LangGraph state machines that run them."""
