"""Proofs on a user's own config and data: that a run resumes to the same bits, and that packed samples do not
touch.
"""

from elysia.train.verify.packing_proof import PackingProof, verify_packing
from elysia.train.verify.resume_proof import ResumeProof, verify_resume

__all__ = ["PackingProof", "ResumeProof", "verify_packing", "verify_resume"]
