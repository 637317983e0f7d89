"""What pyproject.toml cannot say: the wheel carries templates/ inside the package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["studio", "studio.*"]), "studio.templates"],
    package_dir={"studio.templates": "templates"},
    package_data={
        "studio": [
            "py.typed",
            "samples/**/*",
            "ui/static/**/*",
            "ui/strings/**/*",
            "general/items/*",
            "memory/models.json",
            "base/catalogue.json",
        ],
        "studio.templates": ["*"],
    },
    exclude_package_data={"": ["*.pyc"]},
)
