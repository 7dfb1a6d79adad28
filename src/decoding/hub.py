"""What asking the Hugging Face hub may raise where it gives no answer."""

from huggingface_hub.errors import HfHubHTTPError

#: The base of all errors of the hub's HTTP client: httpx, or httpx2 from huggingface_hub 2 on.
HTTPError = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
