"""The only room that speaks HTTP to models: the endpoint client, the built-in model and the server for it.

- `serving.client`: `Endpoint`, any OpenAI-compatible API, with bounded retries (CONTRACT 4, 5)
- `serving.images`: items as content parts of a question
- `serving.probe`: what an endpoint can do, for `partita doctor`
- `serving.llava`: the LLaVA-Qwen2 model with its embedding head (METHOD 2)
- `serving.server`, `serving.embedded`: that model behind the OpenAI API, by hand or as a child process

Importing this package loads neither torch nor openai.
"""
