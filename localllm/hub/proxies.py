"""Proxies and certificates: what a person's settings say of the way to a host."""

from __future__ import annotations

import os
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from localllm.errors import NetworkError
from localllm.hub.address import without_secrets

if TYPE_CHECKING:
    import urllib3


def proxy_of(url: str) -> str:
    """The proxy that the environment names for this host, user and password included; "": none."""
    parts = urllib.parse.urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    if not proxy or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def make_pool(proxy: str) -> urllib3.PoolManager:
    """Connections through a proxy ("" for none), with the certificates of the settings.

    Raises:
        NetworkError: a kind of proxy that needs a module which is not installed.
    """
    import ssl

    import urllib3

    context = ssl.create_default_context(cafile=certificates()[0])
    settings: dict[str, Any] = {"ssl_context": context, "maxsize": 32, "num_pools": 16}
    if not proxy:
        return urllib3.PoolManager(**settings)
    parts = urllib.parse.urlsplit(proxy)
    if parts.scheme.startswith("socks"):
        try:
            from urllib3.contrib.socks import SOCKSProxyManager
        except ImportError as exc:
            raise NetworkError(
                f"the proxy {without_secrets(proxy)} needs a module that is not installed",
                "pip install 'urllib3[socks]'",
            ) from exc
        return SOCKSProxyManager(proxy, **settings)
    return urllib3.ProxyManager(
        without_secrets(proxy), proxy_headers=proxy_headers(proxy), **settings
    )


def proxy_headers(proxy: str) -> dict[str, str]:
    """What makes the proxy believe who asks; secret."""
    import urllib3

    parts = urllib.parse.urlsplit(proxy)
    if parts.username is None:
        return {}
    user, password = (urllib.parse.unquote(x or "") for x in (parts.username, parts.password))
    return dict(urllib3.make_headers(proxy_basic_auth=f"{user}:{password}"))


def certificates() -> tuple[str | None, str]:
    """Whom to believe: a file, None for what Python finds by itself, and who says so.

    Precedence, as curl and requests have it: 1. REQUESTS_CA_BUNDLE, 2. CURL_CA_BUNDLE; then
    Python's own: 3. SSL_CERT_FILE and SSL_CERT_DIR, 4. the system's; 5. certifi's, where the
    system has none to show (the installers of macOS).
    """
    import ssl

    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if os.environ.get(name):
            return os.environ[name], name
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if os.path.exists(os.environ.get(name, "")):  # what is not there, OpenSSL passes over
            return None, name
    paths = ssl.get_default_verify_paths()
    if paths.cafile or paths.capath or os.name == "nt":
        return None, "the system"
    try:
        import certifi
    except ImportError:
        return None, "the system"
    return str(certifi.where()), "certifi"
