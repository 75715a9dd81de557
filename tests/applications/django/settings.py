"""A project that runs once on each node, beside its own database. The variables SHOP_… are the test's."""

import os

SECRET_KEY = "only a test"
DEBUG = False
USE_TZ = True

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "shop",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SHOP_DATABASE"],
        # Marmot writes too: so wait for its locks, and take one's own at the start of a transaction.
        "OPTIONS": {"timeout": 60, "transaction_mode": "IMMEDIATE"},
    }
}

# The state of the code: which migrations the models below stand for.
SHOP_VERSION = int(os.environ.get("SHOP_VERSION", "1"))
# Ids that a node gives out begin here, so that two nodes never give out the same one.
SHOP_FIRST_ID = int(os.environ.get("SHOP_FIRST_ID", "1000"))
SHOP_IDS = 1_000_000
