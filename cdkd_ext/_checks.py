from cdkd_ext.errors import InputError, check, check_option, check_type, fail
from cdkd_ext.tensor_checks import check_tensor

__all__ = ["InputError", "check", "check_option", "check_tensor", "check_type", "fail"]
