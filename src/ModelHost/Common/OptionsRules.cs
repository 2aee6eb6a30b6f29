using System.ComponentModel.DataAnnotations;
using Microsoft.Extensions.Options;

namespace ModelHost.Common;

/// <summary>Checks options by their attributes, and says what is wrong in the words of the configuration.</summary>
internal static class OptionsRules
{
    /// <summary>Options from their section of the configuration, checked at start: a key that there is not is as wrong as a value that cannot be.</summary>
    public static OptionsBuilder<T> AddCheckedOptions<T>(this IServiceCollection services, string section) where T : class =>
        services.AddOptions<T>().BindConfiguration(section, binder => binder.ErrorOnUnknownConfiguration = true).ValidateAttributes(section).ValidateOnStart();

    /// <summary>Checks every property by its attributes; the message gives the full key, the value and the rule.</summary>
    /// <param name="options">The options.</param>
    /// <param name="section">Their section of the configuration.</param>
    private static OptionsBuilder<T> ValidateAttributes<T>(this OptionsBuilder<T> options, string section) where T : class
    {
        options.Services.AddSingleton<IValidateOptions<T>>(new Attributes<T>(section));
        return options;
    }

    private sealed class Attributes<T>(string section) : IValidateOptions<T> where T : class
    {
        public ValidateOptionsResult Validate(string? name, T options)
        {
            var wrong = new List<ValidationResult>();
            return Validator.TryValidateObject(options, new ValidationContext(options), wrong, validateAllProperties: true)
                ? ValidateOptionsResult.Success
                : ValidateOptionsResult.Fail(wrong.SelectMany(result => result.MemberNames.Select(member =>
                    $"{section}:{member}={Shown(typeof(T).GetProperty(member)?.GetValue(options))}: {result.ErrorMessage}")));
        }

        // what stands before an @ may be a login
        private static object? Shown(object? value) => value is string text && text.LastIndexOf('@') is >= 0 and var at ? "********" + text[at..] : value;
    }
}
