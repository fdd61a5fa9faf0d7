"""ndstream's own HTTP API below ``/v1``; see SPEC.md in this folder."""
