"""The encrypted vault, in the place of "Storage by Zapier": webhook keys and API tokens at rest."""

from downriver.vault.vault import SecretInfo, Vault

__all__ = ["SecretInfo", "Vault"]
