"""The testable statements of PatchSAE (Lim et al., ICLR 2025), judged by rule from the tables of an experiment."""

from conceptbench.measures.claims.judge import measure_claims
from conceptbench.measures.claims.page import claims_page
from conceptbench.measures.claims.statements import STATEMENTS

__all__ = ["STATEMENTS", "claims_page", "measure_claims"]
