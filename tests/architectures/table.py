"""All the architectures that the tests make.

Not among them: plm, whose graph this llama.cpp cannot build (its values lack a dimension that
the cache asserts); gptj and clip, which it names and does not implement; eagle3, dflash and
gemma4-assistant, drafts that run only beside the model that they draft for; wavtokenizer-dec,
which decodes sound and no text.
"""

from __future__ import annotations

from tests.architectures.dense import DENSE
from tests.architectures.encoders import AT_ONCE
from tests.architectures.experts import WITH_EXPERTS
from tests.architectures.newest import NEWEST
from tests.architectures.recurrent import WITH_STATE

ARCHITECTURES = (*DENSE, *WITH_EXPERTS, *WITH_STATE, *AT_ONCE, *NEWEST)
