"""The encrypted vault, in the place of "Storage by Zapier": webhook keys and API tokens at rest.

`box` is the cryptography, `keyfile` the key on disk, `vault` what others use.
"""

from downriver.vault.vault import SecretInfo, Vault

__all__ = ["SecretInfo", "Vault"]
