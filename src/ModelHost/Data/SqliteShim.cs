using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Loader;

namespace ModelHost.Data;

/// <summary>
/// Lets EF Core's SQLite provider run on SQLitePCLRaw 2.0.6 and on the system's SQLite. The provider asks for a later SQLitePCLRaw
/// but uses nothing of it except extension loading, which is never asked for here.
/// </summary>
internal static class SqliteShim
{
#pragma warning disable CA2255 // must be in place before the first EF Core call, also under dotnet-ef and in tests
    [ModuleInitializer]
    internal static void Install()
#pragma warning restore CA2255
    {
        // the binder refuses 2.0.6 for a 2.1 reference and then asks here; the request without a version succeeds
        AssemblyLoadContext.Default.Resolving += static (context, name) =>
            name.Name == "SQLitePCLRaw.core" && name.Version is not null
                ? context.LoadFromAssemblyName(new AssemblyName("SQLitePCLRaw.core"))
                : null;

        // the bundled SQLite is 3.35; the system's is newer and patched. Without one the bundled one is taken.
        NativeLibrary.SetDllImportResolver(
            Assembly.Load("SQLitePCLRaw.provider.e_sqlite3"),
            static (name, _, _) => name == "e_sqlite3" && NativeLibrary.TryLoad("libsqlite3.so.0", out var handle) ? handle : IntPtr.Zero);
    }
}
