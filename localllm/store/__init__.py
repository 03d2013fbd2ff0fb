"""What is on this disk: versions of models, their manifests and files, and what makes one trusted.

Knows this disk. Knows nothing of networks, engines or persons.
"""

from localllm.store.adoption import (
    HUB_PROGRAM,
    Adopted,
    Candidate,
    adopt,
    find_elsewhere,
    hash_file,
)
from localllm.store.checks import (
    Check,
    chat_template_sha256,
    check_integrity,
    check_quantization,
    check_structure,
    header_sha256,
)
from localllm.store.layout import Kind, Repo, cache_root, hub_cache_root
from localllm.store.library import Contents, Store, template_warning
from localllm.store.manifest import CheckName, Facts, Manifest, Role, StoredFile
from localllm.store.removal import Kept, Removal

__all__ = [
    "HUB_PROGRAM",
    "Adopted",
    "Candidate",
    "Check",
    "CheckName",
    "Contents",
    "Facts",
    "Kept",
    "Kind",
    "Manifest",
    "Removal",
    "Repo",
    "Role",
    "Store",
    "StoredFile",
    "adopt",
    "cache_root",
    "chat_template_sha256",
    "check_integrity",
    "check_quantization",
    "check_structure",
    "find_elsewhere",
    "hash_file",
    "header_sha256",
    "hub_cache_root",
    "template_warning",
]
